;; Sets a key of 600 bytes.
(func $process (result i32) (call $set-key (i32.const 1024) (i32.const 600)) (i32.const 0))
