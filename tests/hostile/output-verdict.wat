;; Drops for a reason of 5 MiB.
(memory $memory 100)
(func $configure (result i32) (memory.fill (i32.const 8192) (i32.const 97) (i32.const 0x500000)) (i32.const 0))
(func $process (result i32) (call $verdict (i32.const 2) (i32.const 8192) (i32.const 0x500000)))
