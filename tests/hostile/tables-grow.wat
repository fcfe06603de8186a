;; Grows three tables, each of them within the limit.
(table $a 1 funcref) (table $b 1 funcref) (table $c 1 funcref)
(func $process (result i32)
  (drop (table.grow $a (ref.null func) (i32.const 19000)))
  (drop (table.grow $b (ref.null func) (i32.const 19000)))
  (if (i32.eq (table.grow $c (ref.null func) (i32.const 19000)) (i32.const -1)) (then (unreachable)))
  (i32.const 0))
