;; Reads behind its table.
(table $t 1 funcref) (global $n (mut i32) (i32.const 9))
(func $process (result i32) (drop (table.get $t (global.get $n))) (i32.const 0))
