;; Answers with a verdict that lies behind its memory.
(func $process (result i32) (i32.const 0x7ffffff0))
