using MLPGF, Test

# Each file in a module of its own, so that their helpers do not meet.
@testset "MLPGF" begin
    for file in sort!(filter(endswith("_tests.jl"), readdir(@__DIR__)))
        Base.include(Module(Symbol(file)), joinpath(@__DIR__, file))
    end
end
