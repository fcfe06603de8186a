;; Traps in its start function.
(func $boom (unreachable))
(start $boom)
