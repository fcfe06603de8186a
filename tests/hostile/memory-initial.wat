;; Begins with more memory than it may have.
(memory $memory 2000)
