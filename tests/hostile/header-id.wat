;; Gives the message in hand another id.
(data (i32.const 1024) "quipu-idforged")
(func $process (result i32) (call $set-header (i32.const 1024) (i32.const 8) (i32.const 1032) (i32.const 6)) (i32.const 0))
