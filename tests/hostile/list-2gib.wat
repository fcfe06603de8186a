;; Hands over a payload of 2 GiB.
(func $process (result i32) (call $set-payload (i32.const 0) (i32.const 0x80000000)) (i32.const 0))
