;; Forges a header of the router's own.
(data (i32.const 1024) "Quipu-Rootforged")
(func $process (result i32) (call $set-header (i32.const 1024) (i32.const 10) (i32.const 1034) (i32.const 6)) (i32.const 0))
