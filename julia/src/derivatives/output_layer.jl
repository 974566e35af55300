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
over the inputs a of that layer, one last where it has a bias; `moments`, Σ w a (y − f)ᵀ.
"""
struct OutputProjection{T<:AbstractFloat}
    offset::Int
    gram::Matrix{T}
    moments::Matrix{T}
    solution::Vector{T}
end
function OutputProjection(net::Net{T}) where {T}
    l = last(net.layers)
    q = l.fan_in + l.bias
    return OutputProjection{T}(l.offset, zeros(T, q, q), zeros(T, q, l.width), zeros(T, q))
end

output_projection(net) = nothing
output_projection(net::Net) = separable(net) ? OutputProjection(net) : nothing

function make_arrays!(sums::Sums{T}, ::MomentsPass, net) where {T}
    l = last(net.layers)
    q = l.fan_in + l.bias
    sums.gram === nothing && (sums.gram = zeros(T, q, q); sums.moments = zeros(T, q, l.width))
    return nothing
end
function add_sums!(::MomentsPass, total::Sums{T}, sums::Sums{T}) where {T}
    add_to!(total.gram::Matrix{T}, sums.gram::Matrix{T})
    add_to!(total.moments::Matrix{T}, sums.moments::Matrix{T})
    return nothing
end

# `ws.Ȧ` and `ws.Δ` hold √w a and w (y − f).
function sum_samples!(::MomentsPass, sums::Sums{T}, worker::Worker{T}, net::Net{T}, θ::Vector{T}, v,
                      ::Loss) where {T}
    gram, moments = sums.gram::Matrix{T}, sums.moments::Matrix{T}
    ws, L = worker.workspace, length(net.layers)
    l, A, Z, F, Δ = net.layers[L], ws.A[L-1], ws.Ȧ[L-1], ws.A[L], ws.Δ[L]
    k, q = l.fan_in, size(gram, 1)
    fill!(gram, 0)
    fill!(moments, 0)
    for b in worker.blocks
        beat(worker, net) || return false
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
    return true
end

"""
    project!(projection, objective, θ, damping) -> Bool

Overwrite the output layer's parameters in `θ` with those that minimise the loss plus (damping/2)‖change‖². Counts as
an evaluation of the loss; false if numbers are not finite.
"""
function project!(p::OutputProjection{T}, objective, θ::Vector{T}, damping::T) where {T}
    net = objective.net
    objective.nfev += 1
    G, B, total = p.gram, p.moments, net.crew.total
    total.gram, total.moments = G, B
    sum_shares!(MomentsPass(), net, θ)
    total.gram = total.moments = nothing
    q, factor = length(p.solution), net.output_factor
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
