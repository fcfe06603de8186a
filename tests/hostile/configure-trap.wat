;; Traps in `configure`.
(func $configure (result i32) (unreachable))
