;; Hands over a text that is not UTF-8.
(data (i32.const 1024) "ab\ff\fe")
(func $process (result i32) (call $set-payload-text (i32.const 1024) (i32.const 4)) (i32.const 0))
