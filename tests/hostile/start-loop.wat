;; Loops in its start function.
(func $spin (loop (br 0)))
(start $spin)
