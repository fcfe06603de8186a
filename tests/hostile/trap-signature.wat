;; Calls a function as if it had another type.
(table $t 1 funcref) (elem (i32.const 0) $other) (func $other (param i64))
(func $process (result i32) (call_indirect $t (result i32) (i32.const 0)))
