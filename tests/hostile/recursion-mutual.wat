;; Calls itself by way of a table.
(table $t 1 funcref) (elem (i32.const 0) $deep)
(func $deep (result i64) (i64.add (call_indirect $t (result i64) (i32.const 0)) (i64.const 1)))
(func $process (result i32) (drop (call $deep)) (i32.const 0))
