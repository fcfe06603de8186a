;; Sets a payload of 1 MiB again and again.
(memory $memory 20)
(func $process (result i32) (loop $more (call $set-payload (i32.const 8192) (i32.const 0x100000)) (br $more)) (unreachable))
