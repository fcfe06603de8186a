;; Puts a header into a name.
(data (i32.const 1024) "kind: a\0d\0ax")
(func $process (result i32) (call $set-header (i32.const 1024) (i32.const 10) (i32.const 1024) (i32.const 1)) (i32.const 0))
