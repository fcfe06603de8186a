;; Grows two memories in turn, each of them within the limit.
(memory $memory 2) (memory $other 1)
(func $process (result i32) (loop $more
    (br_if $more (i32.and
      (i32.ne (memory.grow $memory (i32.const 64)) (i32.const -1))
      (i32.ne (memory.grow $other (i32.const 64)) (i32.const -1)))))
  (unreachable))
