;; Gives the message a priority that there is not.
(data (i32.const 1024) "quipu-priority99")
(func $process (result i32) (call $set-header (i32.const 1024) (i32.const 14) (i32.const 1038) (i32.const 2)) (i32.const 0))
