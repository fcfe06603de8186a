;; Has data behind its memory.
(data (i32.const 0x7fffffff) "x")
