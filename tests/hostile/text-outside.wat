;; Logs a text that ends behind its memory.
(func $process (result i32) (call $log (i32.const 2) (i32.const 0x1fff0) (i32.const 0x100)) (i32.const 0))
