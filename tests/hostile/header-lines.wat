;; Puts a second header into the value of a first.
(data (i32.const 1024) "kinda\0d\0aquipu-root: forged")
(func $process (result i32) (call $set-header (i32.const 1024) (i32.const 4) (i32.const 1028) (i32.const 21)) (i32.const 0))
