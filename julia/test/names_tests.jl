using MLPGF, Test

@testset "every exported name has a docstring" begin
    documented(name) = haskey(Docs.meta(MLPGF), Docs.Binding(MLPGF, name)) ||
                       (getfield(MLPGF, name) isa Module && haskey(Docs.meta(getfield(MLPGF, name)),
                                                                   Docs.Binding(MLPGF, name)))
    @test filter(!documented, names(MLPGF)) == []
end
