;; Refuses its configuration with a text that is none.
(data (i32.const 64) "\01\00\00\00\00\04\00\00\04\00\00\00") (data (i32.const 1024) "\ff\ff\ff\ff")
(func $configure (result i32) (i32.const 64))
