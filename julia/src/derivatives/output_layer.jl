# The best parameters of a linear output layer for given hidden layers: linear least squares.

"Is the loss a mean square of outputs that are linear in the last layer's parameters, and nothing else?"
separable(net) = false
function separable(net::Net)
    return net.objective isa MeanSquared && last(net.layers).activation isa Identity && length(net.layers) > 1 &&
           !isempty(net.blocks) && unregularised(net)
end

"""
    OutputProjection(net)

Workspace of [`project!`](@ref): the parameters of the output layer come after the first `offset`; `gram` is Σ w a aᵀ
over the inputs a of that layer, one last where it has a bias; `moments`, Σ w a (y − f)ᵀ; a pair of them for each
share of the samples.
"""
struct OutputProjection{T<:AbstractFloat}
    offset::Int
    gram::Vector{Matrix{T}}
    moments::Vector{Matrix{T}}
    solution::Vector{T}
end
function OutputProjection(net::Net{T}) where {T}
    l = last(net.layers)
    q, shares = l.fan_in + l.bias, length(net.shares)
    return OutputProjection{T}(l.offset, [zeros(T, q, q) for _ in 1:shares], [zeros(T, q, l.width) for _ in 1:shares],
                               zeros(T, q))
end

output_projection(net) = nothing
output_projection(net::Net) = separable(net) ? OutputProjection(net) : nothing

"Sums over one share; `ws.Ȧ` and `ws.Δ` hold √w a and w (y − f)."
function output_moments!(gram::Matrix{T}, moments::Matrix{T}, share::Share{T}, net::Net{T}, θ::Vector{T}) where {T}
    ws, L = share.workspace, length(net.layers)
    l, A, Z, F, Δ = net.layers[L], ws.A[L-1], ws.Ȧ[L-1], ws.A[L], ws.Δ[L]
    k, q = l.fan_in, size(gram, 1)
    fill!(gram, 0)
    fill!(moments, 0)
    for b in share.blocks
        beat(share, net)
        block = net.blocks[b]
        n, w = block.n, block.w
        forward!(ws, net, θ, block, 0)
        @inbounds for j in 1:k
            @lanes r n Z[r, j] = sqrt(w[r]) * A[r, j]
        end
        gram!(Panel(gram), k, k, Panel(Z), Panel(Z), n, true)
        @inbounds for o in 1:l.width
            @lanes r n Δ[r, o] = w[r] * (block.Y[r, o] - F[r, o])
            for j in 1:q
                moments[j, o] += column_dot(Δ, o, A, j, n)
            end
        end
        if l.bias
            @inbounds @lanes r n Z[r, k+1] = w[r]
            @inbounds for j in 1:q
                gram[q, j] += column_dot(Z, k + 1, A, j, n)
            end
        end
    end
    return nothing
end

"""
    project!(projection, objective, θ, damping) -> Bool

Overwrite the output layer's parameters in `θ` with those that minimise the loss plus (damping/2)‖change‖². Counts as
an evaluation of the loss; false if numbers are not finite.
"""
function project!(p::OutputProjection{T}, objective, θ::Vector{T}, damping::T) where {T}
    net = objective.net
    objective.nfev += 1
    for_shares(net) do i, share
        output_moments!(p.gram[i], p.moments[i], share, net, θ)
    end
    G, B, q, factor = p.gram[1], p.moments[1], length(p.solution), net.output_factor
    for i in 2:length(p.gram)
        add_to!(G, p.gram[i])
        add_to!(B, p.moments[i])
    end
    largest = zero(T)
    for j in 1:q
        largest = max(largest, G[j, j])
    end
    isfinite(largest) || return false
    # Units that are copies of each other leave the Gram matrix singular.
    shift = damping * net.n_samples / (2 * factor^2) + 10 * q * eps(T) * largest
    for j in 1:q
        G[j, j] += shift
    end
    cholesky_lower!(G) || return false
    l, v = last(net.layers), p.solution
    for o in 1:l.width
        for j in 1:q
            v[j] = B[j, o] / factor
        end
        cholesky_solve!(G, v)
        for j in 1:l.fan_in
            θ[l.offset+(o-1)*l.fan_in+j] += v[j]
        end
        l.bias && (θ[bias_offset(l)+o] += v[q])
    end
    return true
end

function for_shares(f::F, net) where {F}
    length(net.shares) == 1 && return f(1, net.shares[1])
    each_share(net) do share
        f(findfirst(s -> s === share, net.shares), share)
    end
end

function add_to!(A, B)
    for i in eachindex(A)
        A[i] += B[i]
    end
    return A
end
