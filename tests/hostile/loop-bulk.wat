;; Loops over bulk operations on all of its memory, which the engine does not interrupt.
(memory $memory 1000)
(func $process (result i32) (loop $more (memory.fill (i32.const 8192) (i32.const 1) (i32.const 65000000)) (br $more)) (unreachable))
