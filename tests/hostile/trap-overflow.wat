;; Divides the smallest number by -1.
(global $n (mut i32) (i32.const 0x80000000))
(func $process (result i32) (i32.div_s (global.get $n) (i32.const -1)))
