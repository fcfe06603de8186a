;; Routes to every subject there is.
(data (i32.const 1024) "a.>") (data (i32.const 2048) "\00\04\00\00\03\00\00\00")
(func $process (result i32) (call $verdict (i32.const 1) (i32.const 2048) (i32.const 1)))
