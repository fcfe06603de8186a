;; Grows its memory page by page until it is refused, and traps then.
(func $process (result i32) (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (unreachable))
