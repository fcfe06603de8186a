;; Emits a message while it is configured.
(data (i32.const 1024) "spill")
(func $configure (result i32) (call $copy (i32.const 1024) (i32.const 5) (i32.const 64)) (i32.const 0))
