;; Calls the router while the router asks it for memory.
(func $cabi_realloc (param i32 i32 i32 i32) (result i32) (call $payload (i32.const 64)) (i32.const 8192))
(func $process (result i32) (call $payload (i32.const 64)) (i32.const 0))
