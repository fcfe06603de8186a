;; Has a memory with addresses of 64 bits.
(memory $wide i64 1)
