;; Routes each message back to its own queue.
(data (i32.const 1024) "bad-route-self") (data (i32.const 2048) "\00\04\00\00\0e\00\00\00")
(func $process (result i32) (call $verdict (i32.const 1) (i32.const 2048) (i32.const 1)))
