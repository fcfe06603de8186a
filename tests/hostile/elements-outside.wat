;; Has elements behind its table.
(table $t 1 funcref) (elem (i32.const 9) $process)
