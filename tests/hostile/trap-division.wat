;; Divides by zero.
(func $process (result i32) (i32.div_u (i32.const 1) (call $zero)))
(func $zero (result i32) (i32.const 0))
