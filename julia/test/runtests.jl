using MLPGF, Test

# Each file in a module of its own, so that their helpers do not meet; those that ARGS names, or all.
@testset "MLPGF" begin
    named = basename.(ARGS)
    for file in sort!(filter(endswith("_tests.jl"), readdir(@__DIR__)))
        isempty(named) || file in named || continue
        Base.include(Module(Symbol(file)), joinpath(@__DIR__, file))
    end
end
