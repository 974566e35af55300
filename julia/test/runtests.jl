using MLPGF, Test

# Each file in a module of its own, so that their helpers do not meet.
@testset "MLPGF" begin
    for file in ("derivative_tests.jl", "loss_tests.jl", "params_tests.jl", "flow_tests.jl", "minimize_tests.jl",
                 "infinite_tests.jl")
        Base.include(Module(Symbol(file)), joinpath(@__DIR__, file))
    end
end
