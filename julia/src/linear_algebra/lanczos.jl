"""
    ExtremeEigenvalues{T}(n, lowest, highest)

The `lowest` and `highest` eigenvalues, so many at either end, of symmetric operators on vectors of length `n` that
change little from one to the next, as the Hessian does along a trajectory: see [`extremes!`](@ref).
"""
mutable struct ExtremeEigenvalues{T<:AbstractFloat}
    n::Int
    lowest::Int
    highest::Int
    basis::Matrix{T}        # Lanczos vectors in columns
    diagonal::Vector{T}
    off::Vector{T}
    start::Vector{T}        # the wanted eigenvectors of the last operator, added up
    noise::Vector{T}
    w::Vector{T}
    products::Int           # operators times a vector, since it was made
end

# More vectors are not kept: with those wanted alone the method begins again.
const LANCZOS_VECTORS = 120
const LANCZOS_ROUNDS = 10
# The part of the start that is not of the last eigenvectors: what comes up elsewhere in the spectrum grows from it.
const LANCZOS_NOISE = 1e-2

function ExtremeEigenvalues{T}(n::Int, lowest::Int, highest::Int) where {T}
    possible = min(n, div(LANCZOS_VECTORS, 2))
    lowest >= 0 && highest >= 0 && 1 <= lowest + highest <= possible || throw(ArgumentError(
        "$lowest lowest and $highest highest eigenvalues are asked for; 1 to $possible in all are possible"))
    noise = T.(randn(MersenneTwister(1), n))
    rmul!(noise, 1 / norm(noise))
    m = min(n, LANCZOS_VECTORS)
    return ExtremeEigenvalues{T}(n, lowest, highest, zeros(T, n, m + 1), zeros(T, m), zeros(T, m), copy(noise), noise,
                                 zeros(T, n), 0)
end

"""
    extremes!(e, multiply!) -> values

Ascending, the eigenvalues at the ends of the spectrum of the operator `multiply!(y, v)`: Lanczos's method with full
reorthogonalisation (Parlett, The Symmetric Eigenvalue Problem, chapter 13), begun from the eigenvectors of the operator
before. It ends when the errors are below √eps of the largest |λ|, with a margin (see [`error_bound`](@ref)).
"""
function extremes!(e::ExtremeEigenvalues{T}, multiply!) where {T}
    V, wanted, most = e.basis, e.lowest + e.highest, size(e.basis, 2) - 1
    values = fill(T(NaN), wanted)
    accuracy = sqrt(eps(T)) / 8            # a value was off by 1.5 times its bound, since the Ritz values are not exact
    for round in 1:LANCZOS_ROUNDS
        place!(V, 1, e.start)
        for j in 1:most
            v = V[:, j]
            multiply!(e.w, v)
            e.products += 1
            e.diagonal[j] = dot(v, e.w)
            isfinite(e.diagonal[j]) || return values
            for repeat in 1:2, i in j:-1:1              # twice is enough (Parlett, section 6.9)
                u = view(V, :, i)
                axpy!(-dot(u, e.w), u, e.w)
            end
            e.off[j] = norm(e.w)
            done = j == e.n || j == most
            j >= wanted && (done || j % 2 == 0) || (continue_basis!(e, j); continue)
            F = eigenpairs!(Matrix(SymTridiagonal(e.diagonal[1:j], e.off[1:j-1])))
            chosen = [1:e.lowest; j-e.highest+1:j]
            size = maximum(abs, F.values)
            off = j == e.n ? zero(T) : maximum(k -> error_bound(e, F, k, j), chosen)
            if off <= accuracy * size || done
                values .= F.values[chosen]
                warm = V[:, 1:j] * vec(sum(F.vectors[:, chosen]; dims=2))
                e.start .= warm ./ norm(warm) .+ T(LANCZOS_NOISE) .* e.noise
                off <= accuracy * size && return values
                break
            end
            continue_basis!(e, j)
        end
    end
    return values           # the best that so many products give
end

"""
How far the k-th Ritz value of `j` vectors can be from an eigenvalue: by its residual ‖Av − λv‖, or by the square of
that over the distance to the other eigenvalues (Temple and Kato; Parlett, section 10.6), of which the other Ritz values
tell.
"""
function error_bound(e::ExtremeEigenvalues, F, k::Int, j::Int)
    residual = e.off[j] * abs(F.vectors[j, k])
    gap = min(k > 1 ? F.values[k] - F.values[k-1] : Inf, k < j ? F.values[k+1] - F.values[k] : Inf)
    return gap > 2 * residual ? min(residual, residual^2 / (gap - residual)) : residual
end

function place!(V::Matrix{T}, j::Int, w::Vector{T}) where {T}
    size = norm(w)
    for i in eachindex(w)
        V[i, j] = w[i] / size
    end
    return nothing
end

"The next Lanczos vector; where the space is exhausted, any that is orthogonal to the others."
function continue_basis!(e::ExtremeEigenvalues{T}, j::Int) where {T}
    j == e.n && return nothing
    if e.off[j] <= 4 * eps(T) * maximum(abs, view(e.diagonal, 1:j))
        e.off[j] = 0
        e.w .= e.noise
        e.w[mod1(j, e.n)] += 1
        for repeat in 1:2, i in 1:j
            u = view(e.basis, :, i)
            axpy!(-dot(u, e.w), u, e.w)
        end
    end
    place!(e.basis, j + 1, e.w)
    return nothing
end
