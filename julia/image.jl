# Makes the object file of a system image: Julia's own, MLPGF, and the native code of all that the workload runs. Run by
# pymlpgf/runtime/image/build.py as `julia --output-o MLPGF.o image.jl BINDIR STDLIB`. Where an object file is written
# no module has been initialised and Julia does not know its folders.
Base.__init__()
@eval Sys BINDIR = $(ARGS[1])
@eval Sys STDLIB = $(ARGS[2])
const MLPGF = Base.require(Main, :MLPGF)
MLPGF.LinearAlgebra.__init__()
MLPGF.Random.__init__()
for failure in MLPGF.workload()
    println(stderr, "the workload: ", failure)
end
# The process that loads the image finds packages and depots by its own environment.
empty!(LOAD_PATH)
empty!(DEPOT_PATH)
