module quipu

go 1.27
