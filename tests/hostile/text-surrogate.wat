;; Drops for a reason with a surrogate in it, which is not UTF-8 either.
(data (i32.const 1024) "\ed\a0\80")
(func $process (result i32) (call $verdict (i32.const 2) (i32.const 1024) (i32.const 3)))
