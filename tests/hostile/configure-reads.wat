;; Looks for a message before there is one.
(func $configure (result i32) (call $payload-len))
