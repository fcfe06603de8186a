;; Rejects for a reason of 1 MiB.
(memory $memory 20)
(func $configure (result i32) (memory.fill (i32.const 8192) (i32.const 97) (i32.const 0x100000)) (i32.const 0))
(func $process (result i32) (call $verdict (i32.const 4) (i32.const 8192) (i32.const 0x100000)))
