;; Makes an integer of a number that is none.
(global $n (mut f64) (f64.const nan))
(func $process (result i32) (i32.trunc_f64_s (global.get $n)))
