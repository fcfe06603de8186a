;; Reads behind its memory.
(func $process (result i32) (i32.load (i32.const 0x7ffffff0)))
