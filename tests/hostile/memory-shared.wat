;; Has a memory that threads could share.
(memory $memory 1 2 shared)
