;; Loops in `configure`.
(func $configure (result i32) (loop (br 0)) (unreachable))
