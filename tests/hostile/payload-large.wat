;; Sets a payload larger than any message; its output limit would allow it.
(memory $memory 200)
(func $process (result i32) (call $set-payload (i32.const 0) (i32.const 9000000)) (i32.const 0))
