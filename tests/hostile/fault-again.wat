;; Reports a hundred faults and traps; the last one counts.
(data (i32.const 1024) "over and over")
(func $process (result i32) (local $n i32)
  (loop $more
    (call $fault (i32.const 1024) (i32.const 13) (i32.const 1024) (i32.const 4))
    (br_if $more (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 100))))
  (unreachable))
