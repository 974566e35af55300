# The correlation loss is no sum over samples: moments of the outputs come first, and second derivatives have products
# of sums.

"Weighted means and standard deviations of outputs and targets, and one minus the correlations."
function prepare!(c::Correlation{T}, net::Net{T}, θ::Vector{T}) where {T}
    ws, total = net.crew.workers[1].workspace, zero(T)
    c.part = 0
    for o in eachindex(c.mean)
        c.mean[o] = c.inverse[o] = c.target[o] = c.spread[o] = c.left[o] = zero(T)
    end
    for block in net.blocks
        heartbeat(net.monitor)
        forward!(ws, net, θ, block, 0)
        part = zero(T)
        @inbounds for r in 1:block.n
            part += block.w[r]
        end
        part > 0 || continue
        total += part
        for o in eachindex(c.mean)
            join_moments!(c, o, last(ws.A), block, part, total)
        end
    end
    c.share = net.n_samples / total
    for o in eachindex(c.mean)
        c.left[o] = 1 - c.left[o] / sqrt(c.inverse[o] * c.spread[o])
        c.inverse[o] = sqrt(total / c.inverse[o])
        c.spread[o] = sqrt(total / c.spread[o])
    end
    return nothing
end

"""
Means, sums of squares around them and of products of output and target `o`, joined with those of the blocks before
(Chan, Golub and LeVeque, The American Statistician 37 (1983) 242).
"""
function join_moments!(c::Correlation{T}, o::Int, F::Matrix{T}, block::Block{T}, part::T, total::T) where {T}
    Y, w = block.Y, block.w
    f = y = zero(T)
    @inbounds @simd for r in 1:block.n
        f += w[r] * F[r, o]
        y += w[r] * Y[r, o]
    end
    f /= part
    y /= part
    ff = yy = fy = zero(T)
    @inbounds @simd for r in 1:block.n
        d, e = F[r, o] - f, Y[r, o] - y
        ff += w[r] * d * d
        yy += w[r] * e * e
        fy += w[r] * d * e
    end
    d, e, k = f - c.mean[o], y - c.target[o], part * (total - part) / total
    c.mean[o] += d * part / total
    c.target[o] += e * part / total
    c.inverse[o] += ff + k * d * d
    c.spread[o] += yy + k * e * e
    c.left[o] += fy + k * d * e
    return nothing
end

"The gradients `first`, `second`, `third` of the three means of output `o`; returns 1/s² and the factors of m² and a²."
function outer_factors!(c::Correlation{T}, net::Net{T}, θ::Vector{T}, o::Int) where {T}
    c.output = o
    for part in 1:3
        c.part = part
        g = part == 1 ? c.first : part == 2 ? c.second : c.third
        net.crew.total.vector = resize!(g, net.n_params)
        sum_shares!(GradientPass(), net, θ)
        net.crew.total.vector = nothing
    end
    c.part = 0
    r, ℓ = 1 - c.left[o], log_scale(c, o)
    return c.inverse[o]^2, r + ℓ, 3 * r + 2 * ℓ - !isempty(c.held)
end

# −L'' has r m² − 2 a b + 3 r a² over s².
function add_outer_terms!(H::Matrix{T}, c::Correlation{T}, net::Net{T}, θ::Vector{T}, offset::Int=0) where {T}
    for o in eachindex(c.mean)
        k, r, square = outer_factors!(c, net, θ, o)
        M, A, B = c.first, c.second, c.third
        @inbounds for j in 1:size(H, 2)
            q = offset + j
            m, a, b = -k * r * M[q], k * (B[q] - square * A[q]), k * A[q]
            @simd for i in j:size(H, 1)
                p = offset + i
                H[i, j] += m * M[p] + a * A[p] + b * B[p]
            end
        end
    end
    return H
end

function add_outer_product!(y::Vector{T}, c::Correlation{T}, net::Net{T}, θ::Vector{T}, v::Vector{T}) where {T}
    for o in eachindex(c.mean)
        k, r, square = outer_factors!(c, net, θ, o)
        M, A, B = c.first, c.second, c.third
        m = a = b = zero(T)
        @inbounds @simd for i in eachindex(v)
            m += M[i] * v[i]
            a += A[i] * v[i]
            b += B[i] * v[i]
        end
        @inbounds @simd for i in eachindex(y)
            y[i] += k * (-r * m * M[i] + (b - square * a) * A[i] + a * B[i])
        end
    end
    return y
end

"""
    held_scale(net, θ) -> Net or nothing

Where outputs have no scale of their own, the same net with that of θ held (see [`Correlation`](@ref)). Steps by the
Hessian would run it to zero, or to infinity: along it there is curvature wherever the gradient is not zero, and nothing
to find.
"""
held_scale(net, θ) = nothing
function held_scale(net::Net{T}, θ) where {T}
    net.objective isa Correlation && last(net.layers).activation isa Identity && unregularised(net) || return nothing
    isempty(net.objective.held) || return nothing
    other = twin(net)
    prepare!(other.objective, other, Vector{T}(θ))
    all(isfinite, other.objective.inverse) || return nothing
    other.objective.held = copy(other.objective.inverse)
    return other
end
