# Chains of hidden units (see `Derivative`). Their columns have the identity as their activation; each pass through a
# layer ends with the map of each chain, or with its derivative, in place.

"Outputs of the chains of layer `l` from their pre-activations in `A`; derivatives to `order`."
function compose_chains!(ws::Workspace, layer::Layer, l::Int, n::Int, order::Int)
    for c in eachindex(layer.chains)
        chain = layer.chains[c]
        compose!(chain.activation, ws.A[l], ws.chains[l][c], chain, n, order)
    end
    return nothing
end

"Ȧ ← J Ȧ for the chains of layer `l`"
function push_chains!(Ȧ::Matrix, ws::Workspace, layer::Layer, l::Int, n::Int)
    for c in eachindex(layer.chains)
        multiply!(Ȧ, ws.chains[l][c], layer.chains[c].units, n, false)
    end
    return nothing
end
"Δ ← Jᵀ Δ for the chains of layer `l`"
function pull_chains!(Δ::Matrix, ws::Workspace, layer::Layer, l::Int, n::Int)
    for c in eachindex(layer.chains)
        multiply!(Δ, ws.chains[l][c], layer.chains[c].units, n, true)
    end
    return nothing
end

function multiply!(C::Matrix{T}, b::ChainBuffers{T}, units::Vector{Int}, n::Int, transposed::Bool) where {T}
    k = length(units)
    @inbounds for p in 1:k
        @lanes r n b.row[r, p] = zero(T)
        for q in 1:k
            c = transposed ? (q - 1) * k + p : (p - 1) * k + q
            @lanes r n b.row[r, p] = muladd(b.first[r, c], C[r, units[q]], b.row[r, p])
        end
    end
    @inbounds for p in 1:k
        @lanes r n C[r, units[p]] = b.row[r, p]
    end
    return nothing
end

"Δ̇_q += Σ E_p ∂²a_p/∂h_q∂h_t Ḣ_t for the chains of layer `l`"
function bend_chains!(Δ̇::Matrix, E::Matrix, Ḣ::Matrix, ws::Workspace, layer::Layer, l::Int, n::Int)
    for c in eachindex(layer.chains)
        units = layer.chains[c].units
        for t in eachindex(units)
            bend!(Δ̇, E, Ḣ, units[t], ws.chains[l][c], units, t, n)
        end
    end
    return nothing
end
"What column `t` of the chain does, whose Ḣ is column `h`"
function bend!(Δ̇::Matrix{T}, E::Matrix{T}, Ḣ::Matrix{T}, h::Int, b::ChainBuffers{T}, units::Vector{Int}, t::Int,
               n::Int) where {T}
    k = length(units)
    @inbounds for p in 1:k, q in 1:k
        c = ((p - 1) * k + q - 1) * k + t
        @lanes r n Δ̇[r, units[q]] = muladd(E[r, units[p]] * b.second[r, c], Ḣ[r, h], Δ̇[r, units[q]])
    end
    return nothing
end

"What a network without curvature has."
function straighten_chains!(ws::Workspace, l::Int)
    for b in ws.chains[l]
        fill!(b.second, 0)
    end
    return nothing
end
