;; Calls what is not there.
(table $t 1 funcref)
(func $process (result i32) (call_indirect $t (result i32) (i32.const 0)))
