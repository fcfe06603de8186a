;; Reports a fault of 1 MiB with a trace of 1 MiB, and traps.
(memory $memory 40)
(func $configure (result i32) (memory.fill (i32.const 8192) (i32.const 98) (i32.const 0x200000)) (i32.const 0))
(func $process (result i32) (call $fault (i32.const 8192) (i32.const 0x100000) (i32.const 8192) (i32.const 0x100000)) (unreachable))
